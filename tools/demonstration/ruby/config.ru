# frozen_string_literal: true

require_relative 'photographs'

# What is uploaded lies in a temporary file until its request is over.
use Rack::TempfileReaper
run Photographs
