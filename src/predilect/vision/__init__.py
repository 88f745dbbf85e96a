"""From a photograph to scores: transforms, the network with its two heads, and the losses of the paper."""
