# frozen_string_literal: true

require_relative 'photographs'

run Photographs
