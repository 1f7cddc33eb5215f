"""Random sets of HTTPRoutes: what is chosen for a request, and what becomes of it."""
