"""How many bits a network takes: the file, and the data given the network."""
