"""What tests share: ``from testkit.timeouts import scaled``."""
