"""Networks, their data and their training, as far as scripts share them."""
