"""The catalog: TOML files a person writes, read into Models. Pure but for reading the files."""
