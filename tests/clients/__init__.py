"""The clients and servers that people use, each through a real kgw."""
