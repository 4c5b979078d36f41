"""What tests stand on: servers, hubs, machines, runs and archives. Nothing here is a test of mdl."""
