# frozen_string_literal: true

require 'cgi'
require 'sinatra/base'
require 'sqlite3'

# An album: a Sinatra application on SQLite. What it writes lies below DEMONSTRATION_STATE.
class Photographs < Sinatra::Base
  HOME = File.join(ENV.fetch('DEMONSTRATION_STATE'), 'photographs')

  configure do
    set :environment, :production
    set :show_exceptions, false
    set :session_secret, File.read(File.join(HOME, 'secret'))
    enable :sessions
    set :sessions, path: '/ruby', key: 'photographs'
    set :root, __dir__
  end

  helpers do
    # One for each thread, since a connection is not to be used by two at once.
    def db
      Thread.current[:photographs] ||= SQLite3::Database.new(File.join(HOME, 'photographs.sqlite3')).tap do |db|
        db.busy_timeout = 5000
        db.results_as_hash = true
        db.execute('CREATE TABLE IF NOT EXISTS photograph (id INTEGER PRIMARY KEY, title TEXT, type TEXT, content BLOB)')
      end
    end

    def h(text)
      CGI.escapeHTML(text.to_s)
    end

    # Who has the form's page has its token; a stranger's page has not.
    def token
      session[:token] ||= SecureRandom.hex(16)
    end

    def check_token
      halt 403, 'bad token' unless Rack::Utils.secure_compare(params[:token].to_s, token)
    end
  end

  get '/' do
    @said = session.delete(:said)
    @photographs = db.execute('SELECT id, title, length(content) AS size FROM photograph ORDER BY id')
    erb :album
  end

  post '/login' do
    check_token
    session[:user] = 'photographer' if params[:password] == 'demonstration'
    session[:said] = session[:user] ? 'Welcome.' : 'That is not the password.'
    redirect to('/')
  end

  post '/logout' do
    session.clear
    redirect to('/')
  end

  post '/add' do
    check_token
    halt 403, 'log in first' unless session[:user]
    file = params[:file]
    halt 400, 'no file' unless file.is_a?(Hash) && file[:tempfile]
    type = file[:type].to_s.match?(%r{\Aimage/(?:png|jpeg|gif|webp)\z}) ? file[:type] : 'application/octet-stream'
    db.execute('INSERT INTO photograph (title, type, content) VALUES (?, ?, ?)',
               [params[:title], type, SQLite3::Blob.new(file[:tempfile].read)])
    session[:said] = 'It is in the album.'
    redirect to('/')
  end

  get '/photograph/:id' do
    row = db.get_first_row('SELECT type, content FROM photograph WHERE id = ?', params[:id].to_i)
    halt 404, 'no such photograph' unless row
    headers 'X-Content-Type-Options' => 'nosniff'
    content_type row['type']
    row['content']
  end

  # Ten lines in ten seconds, each sent when it is there.
  get '/count' do
    content_type 'text/plain'
    stream do |out|
      out << "worker #{Process.pid} counts to 10\n"
      1.upto(10) do |number|
        sleep 1
        out << "#{number}\n"
      end
    end
  end

  template :album do
    <<~PAGE
      <!doctype html>
      <html lang="en">
      <meta charset="utf-8">
      <meta name="viewport" content="width=device-width">
      <title>Photographs</title>
      <link rel="icon" href="/static/mark.svg">
      <link rel="stylesheet" href="/static/demonstration.css">
      <h1>Photographs</h1>
      <p>Sinatra made this page in a thread of a Ruby worker, from SQLite.</p>
      <% if @said %><p class="key"><%= h @said %></p><% end %>
      <% if session[:user] %>
      <form method="post" action="<%= to('/add') %>" enctype="multipart/form-data">
      <input type="hidden" name="token" value="<%= token %>">
      <p><label>Title <input name="title" required></label> <label>Picture <input type="file" name="file" required></label>
      <button>Put it into the album</button></p></form>
      <form method="post" action="<%= to('/logout') %>"><p><button>Log out</button></p></form>
      <% else %>
      <form method="post" action="<%= to('/login') %>">
      <input type="hidden" name="token" value="<%= token %>">
      <p><label>Password <input type="password" name="password"></label> <button>Log in</button> It is
      <b>demonstration</b>.</p></form>
      <% end %>
      <ul>
      <% @photographs.each do |photograph| %>
      <li><a href="<%= to("/photograph/\#{photograph['id']}") %>"><%= h photograph['title'] %></a>
      <small><%= photograph['size'] %> bytes</small>
      <% end %>
      </ul>
      <p><a href="/">Back to the demonstration</a></p>
      </html>
    PAGE
  end
end
