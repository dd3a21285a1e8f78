"""Jobs: ingestion and deletion that outlive the process that was asked for them."""
