"""gunicorn's settings; the worker class comes from the command line (peer record)."""

bind = "127.0.0.1:@PORT@"
workers = 2
backlog = 4096
keepalive = 600
timeout = 300
graceful_timeout = 2
worker_connections = 16384
worker_tmp_dir = "/dev/shm"
chdir = "@APPS@"
errorlog = "-"
loglevel = "warning"
@log@accesslog = "@DIR@/logs/access.log"
@root@user = "www-data"
@root@group = "www-data"
