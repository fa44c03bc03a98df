//! What the YAML may say, and its conversion into `Config`.
