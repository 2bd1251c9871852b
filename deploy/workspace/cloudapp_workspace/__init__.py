"""What runs inside a customer's container: Datasette behind a guard. The contract is ../README.md."""
