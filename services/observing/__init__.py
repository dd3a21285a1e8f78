"""What our processes tell of themselves: metrics, traces, logs. No room below this one knows it."""
