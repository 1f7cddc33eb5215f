"""A large cluster: 10,000 HTTPRoutes of ten rules and 2,000 Services, loaded and then changed."""
