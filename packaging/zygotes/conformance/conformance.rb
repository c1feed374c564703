# frozen_string_literal: true
# SPDX-License-Identifier: 0BSD
#
# The entry of prefork check-zygote, for a zygote of Ruby.

require "socket"

# What it names is called.
module Conformance
  def self.entry(word)
    case word
    when "state"
      puts "random #{rand}"
      ENV.each { |name, value| puts "#{name}=#{value}" }
      puts "ready"
      $stdout.flush
      sleep
    when "exit"
      $stdout.sync = false
      print "bye"
      exit 7
    when "raise" then raise "as it was told"
    end
  end

  def self.thread = Thread.new { sleep }

  def self.socket_left_open
    @left = Socket.new(:UNIX, :STREAM)
  end
end
