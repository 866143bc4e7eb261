"""Real languages: text, dictionaries, sentence pairs and public test sets become one prepared folder."""
