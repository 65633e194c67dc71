# Puma has no front end beside it: its own reactor keeps idle connections.
environment 'production'
bind 'tcp://127.0.0.1:@PORT@?backlog=4096&low_latency=true'
workers 2
@one@threads 1, 1
@eight@threads 8, 8
preload_app!
persistent_timeout 600
@log@log_requests
rackup '@APPS@/config.ru'
worker_timeout 300
stdout_redirect '@DIR@/puma.log', '@DIR@/puma-error.log', true
