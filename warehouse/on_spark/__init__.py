"""The same stages and the same SQL on Apache Spark; nothing here is imported unless Spark is asked for."""
