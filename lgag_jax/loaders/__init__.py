"""Programs that run exported networks without this package: each is copied beside what it loads."""
