"""The example autoscale: values in, values out."""
