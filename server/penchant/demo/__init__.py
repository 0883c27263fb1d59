"""The demo: a small story in two languages, played through a real server."""
