"""The plug-ins that come with mdl. Each is a folder: its commands, what they do, its schema, its page of the
documentation. The rest of mdl imports none of them, and works without them."""
