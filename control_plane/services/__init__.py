"""Use cases by noun: what pages, REST and command line may ask. Services write goals; the controller acts."""
