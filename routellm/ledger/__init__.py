"""What each request cost and how it was decided, kept in a database: SQLite, or PostgreSQL where several machines write."""
