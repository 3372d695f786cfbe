def document(routes): return {}
