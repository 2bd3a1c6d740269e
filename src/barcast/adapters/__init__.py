"""The only modules that import feast, mlflow, kfp, kubernetes, ccxt, ib_async: one per neighbour."""
