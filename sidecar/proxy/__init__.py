"""The shell: sockets, and the way of a connection from its first byte to its last."""
