"""A thin Kubernetes REST client on aiohttp: objects are plain dictionaries, errors are our own.

Glossary: an *Api* is one authenticated connection pool to one API server; an *Informer* keeps a local copy of a
collection by list and watch; a *kubeconfig* says where the server is and who we are. Only this package and the
`kube` packages of the parts talk to the API server.
"""
