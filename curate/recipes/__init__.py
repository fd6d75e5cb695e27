"""What a recipe says: YAML with variables and expressions, its fields, and the signatures that check them."""
