"""The flags of the modes that show a page in a browser."""

HOST = (
  "the address to listen at. With another address than the default, whoever can reach this machine "
  "and knows the secret can see the scenes and change what was answered.")
PORT = "the port to listen at. 0: 8765, or a free one if that is in use."
NO_BROWSER = "do not open a browser, only print the address."
MAX_PORT = (1 << 16) - 1
