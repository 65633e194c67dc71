"""webserverd and webserverctl: what a person types. Imports as little as it can: start-up time counts."""
