"""A route table in front of any Python application: which handler serves a request, and why?"""

from __future__ import annotations

from kgw.routing import HeaderMatch, Route, RouteTable

SHOP = "*.shop.example"
TABLE = RouteTable(
    [
        Route("/", "website", hosts=SHOP),
        Route("/api", "api v1", hosts=SHOP),
        Route("/api", "api v2", hosts=SHOP, headers={"x-version": "2"}),
        Route("/api/orders", "orders", hosts=SHOP, method="POST"),
        Route(r"/api/users/(?P<user>\d+)", "one user", kind="regex", hosts=SHOP),
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
        if found is None:
            print(f"{method} {host}{path}: no route")
        else:
            rest = found.params or found.suffix or ""
            print(f"{method} {host}{path}: {found.value} {rest}".rstrip())
    print()
    print(TABLE.explain("/api/orders", host="www.shop.example"))


if __name__ == "__main__":
    main()
