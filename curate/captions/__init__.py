"""The texts of rows: prompts from class names and templates, the captions of a row, words and languages."""
