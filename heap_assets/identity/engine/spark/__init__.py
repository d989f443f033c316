"""Apache Spark as an engine: components over many machines, the compiled engine for the rules inside each."""
