"""What runs inside a customer's container: Datasette behind a guard. Contract: ../README.md."""
