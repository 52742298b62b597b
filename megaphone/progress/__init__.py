"""Which times may still appear where: pointstamps, frontiers, capabilities; all of it in tracker.c."""
