"""A route table in front of any Python application: which handler serves a request?"""

from __future__ import annotations

from kgw.routing import HeaderMatch, Route, RouteTable

TABLE = RouteTable(
    [
        Route("/", "website", hosts=("*.shop.example",)),
        Route("/api", "api v1", hosts=("*.shop.example",)),
        Route("/api", "api v2", hosts=("*.shop.example",), headers={"x-version": "2"}),
        Route("/api/orders", "orders", hosts=("*.shop.example",), method="POST"),
        Route(r"/api/users/\d+", "one user", kind="regex", hosts=("*.shop.example",)),
        Route("/healthz", "health", kind="exact"),
        Route(
            "/",
            "beta",
            hosts="www.beta.example",
            headers=[HeaderMatch("cookie", ".*beta.*", "regex")],
        ),
    ]
)


def main() -> None:
    """Prints the route of some requests, and why one of them is not another."""
    for method, host, path, headers in [
        ("GET", "www.shop.example", "/", {}),
        ("GET", "www.shop.example:8080", "/api/users/42?full=1", {}),
        ("GET", "eu.www.shop.example", "/api/items", {"X-Version": "2"}),
        ("POST", "www.shop.example", "/api/orders/7", {}),
        ("GET", "shop.example", "/healthz", {}),
        ("GET", "www.shop.example", "/apis", {}),
        ("GET", "www.beta.example", "/", {"cookie": "a=1; beta=yes"}),
        ("GET", "www.beta.example", "/", {}),
    ]:
        found = TABLE.match(path, host=host, method=method, headers=headers)
        print(f"{method} {host}{path}: {found.value if found else 'no route'}")
    print("\nGET www.shop.example/api/orders")
    for line in TABLE.explain("/api/orders", host="www.shop.example"):
        print(" ", line)


if __name__ == "__main__":
    main()
