def document(routes):
    return {}
