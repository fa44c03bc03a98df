//! Errors with file, line, column, snippet and the nearest right word.
