"""Local servers that stand in for vendors' APIs, written from the vendors' documents and strict about them."""
