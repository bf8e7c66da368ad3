"""The same stages and the same SQL on Apache Spark; nothing here is imported unless Spark is asked for."""

from warehouse.on_spark.runner import SparkRunner

__all__ = ["SparkRunner"]
