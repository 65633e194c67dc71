"""The front end: answers clients, serves files, decides where requests go. The only importer of gevent."""
