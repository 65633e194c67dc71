"""The benchmark's parts, one concern a file; run.py is the program.

process   starts, pins, watches and ends processes        instance  one running server made from a peer record
proc      reads figures from /proc                        peers     which servers there are (data)
machine   lock, idle machine, ports, versions             rows      which timed rows there are (data)
site      the temporary tree: files, applications         targets   floors and goals (data)
requests  the request texts of each row                   cell      measures one row on one server
wrk       runs the load client                            verify    checks answers and counts calls
logs      counts the lines of access logs
sleeper, idle, big, life, freshness: rows that are not one wrk call
store     collected figures      report  medians, ratios, verdicts, JSON and Markdown
"""
