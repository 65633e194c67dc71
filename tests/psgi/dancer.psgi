# A Dancer2 application: session, form, upload, download, a stream.
package Garden;
use Dancer2;

set session => 'Simple';
set logger  => 'Console';
set log     => 'warning';
set charset => 'UTF-8';
set show_errors => 0;

get '/' => sub { return 'hello, ' . (session('name') // 'nobody') };
post '/login' => sub {
    if ((body_parameters->get('password') // '') ne 'open sesame') { status 403; return 'denied' }
    session name => body_parameters->get('name');
    redirect '/';
};
post '/logout' => sub { app->destroy_session; redirect '/' };
post '/upload' => sub {
    my $upload = upload('file');
    return to_json({name => $upload->filename, size => $upload->size, head => substr($upload->content, 0, 10),
        note => body_parameters->get('note')});
};
get '/download' => sub { send_file(readlink('/proc/self/cwd') . '/data', system_path => 1, filename => 'data.txt') };
get '/chunks' => sub {
    delayed {
        flush;
        content "chunk $_\n" for reverse 0 .. 2;
        done;
    };
};
get '/where' => sub { return uri_for('/x') . ' ' . request->address };
get '/die' => sub { die "in a route\n" };
get '/wide' => sub { return "\x{20ac}" };

__PACKAGE__->to_app;
