"""gRPC through the proxy, with the clients and servers of the grpcio package."""
