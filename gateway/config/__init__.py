"""The one YAML file: schema, loading, checking, reloading."""
