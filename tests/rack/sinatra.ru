# frozen_string_literal: true

# A small application on Sinatra, as its authors write them: a log-in with a session, a form, an upload, a download.
require "sinatra/base"
require "json"

class Notes < Sinatra::Base
  enable :sessions
  set :session_secret, "0123456789abcdef" * 4
  set :store, File.join(ENV.fetch("SCRATCH"), "uploads")
  set :host_authorization, permitted_hosts: [] if respond_to?(:host_authorization)
  FileUtils.mkdir_p(settings.store)

  helpers do
    def h(text)
      Rack::Utils.escape_html(text)
    end

    def signed_in!
      redirect to("/login") unless session[:name]
    end
  end

  before { cache_control :no_store }

  get("/login") { '<form method="post"><input name="name"><input name="word" type="password"></form>' }

  post "/login" do
    halt 403, "no such user" unless params[:word] == "secret"
    session[:name] = params[:name]
    redirect to("/")
  end

  get "/" do
    signed_in!
    erb "<p>Hello, <%= h session[:name] %></p><ul>" \
        "<% (session[:notes] || []).each do |note| %><li><%= h note %></li><% end %></ul>"
  end

  post "/notes" do
    signed_in!
    session[:notes] = [*session[:notes], params["note"]]
    redirect to("/"), 303
  end

  put("/method") { "put #{params[:x]}" }

  post "/upload" do
    signed_in!
    file = params[:file]
    FileUtils.cp(file[:tempfile].path, File.join(settings.store, File.basename(file[:filename])))
    json = { name: file[:filename], type: file[:type], size: file[:tempfile].size, title: params[:title] }
    content_type :json
    JSON.generate(json)
  end

  get "/files/:name" do
    signed_in!
    send_file File.join(settings.store, File.basename(params[:name])), disposition: :attachment
  end

  get "/words/:word" do
    content_type "text/plain"
    "#{params[:word]} #{params[:word].encoding} #{params[:word].bytesize}"
  end

  get "/stream" do
    content_type "text/plain"
    stream { |out| 5.times { |number| out << "part #{number}\n" } }
  end

  get("/error") { raise "Sinatra's own error" }

  not_found { "nothing is here" }
end

map("/notes-application") { run Notes }
map("/") { run Notes }
