#!/usr/bin/perl
# A Mojolicious application as its guide writes one: session, form, upload, download, a stream.
use Mojolicious::Lite -signatures;

app->secrets(['not secret here']);
app->log->level('warn');

get '/' => sub ($c) { $c->render(text => 'hello, ' . ($c->session('name') // 'nobody')) };
post '/login' => sub ($c) {
    return $c->render(text => 'denied', status => 403) if ($c->param('password') // '') ne 'open sesame';
    $c->session(name => $c->param('name'));
    $c->redirect_to('/');
};
post '/logout' => sub ($c) { $c->session(expires => 1); $c->redirect_to('/') };
post '/upload' => sub ($c) {
    my $upload = $c->req->upload('file');
    $c->render(json => {name => $upload->filename, size => $upload->size, head => substr($upload->slurp, 0, 10), note => $c->param('note')});
};
get '/download' => sub ($c) {
    $c->res->headers->content_disposition('attachment; filename=data.txt');
    $c->reply->file($c->app->home->child('data'));
};
get '/chunks' => sub ($c) {
    my $left = 3;
    my $drain;
    $drain = sub ($c, @) { $left-- ? $c->write_chunk("chunk $left\n" => $drain) : $c->finish };
    $c->$drain;
};
get '/where' => sub ($c) { $c->render(text => $c->url_for('/x')->to_abs . ' ' . $c->tx->remote_address) };
get '/die' => sub ($c) { die "in a controller\n" };
get '/wide' => sub ($c) { $c->render(text => "\x{20ac}") };
app->start;
