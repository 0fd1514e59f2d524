"""Late events into sessions that are stored already, until they equal a batch over everything."""
