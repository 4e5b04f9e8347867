"""From a tensor to the bytes of its chunk and back: quantiser × symbol model × coder."""
