"""Studies on problems whose answer is known: a table of settings × seeds, run in parallel, resumed, summarised."""
