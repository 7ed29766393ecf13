//! What letters say, in a few languages. `{server}` is the name of this server, `{link}` where the letter leads to.

/// A letter.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) subject: &'static str,
    pub(super) body: &'static str,
}

/// The letters of one language: for making an account, adding an address, and a new password.
struct Language {
    name: &'static str,
    register: Text,
    add: Text,
    password: Text,
}

const LANGUAGES: [Language; 4] = [
    Language {
        name: "en",
        register: Text {
            subject: "Your account on {server}",
            body: "Hello,\n\nsomebody, hopefully you, is making an account on {server} with this e-mail address. To go on, open\n\n\
                   {link}\n\nIf it was not you, do nothing: without this link there will be no account.\n",
        },
        add: Text {
            subject: "Your e-mail address on {server}",
            body: "Hello,\n\nsomebody, hopefully you, wants to add this e-mail address to an account on {server}. Whoever reads mail at\n\
                   this address can then set a new password for the account. To go on, open\n\n{link}\n\nIf it was not you, do nothing.\n",
        },
        password: Text {
            subject: "A new password on {server}",
            body: "Hello,\n\nsomebody, hopefully you, wants to set a new password for your account on {server}. To go on, open\n\n{link}\n\n\
                   If it was not you, do NOT open the link: your password stays as it is.\n",
        },
    },
    Language {
        name: "de",
        register: Text {
            subject: "Dein Konto bei {server}",
            body: "Hallo,\n\njemand, hoffentlich du, legt mit dieser E-Mail-Adresse ein Konto bei {server} an. Um fortzufahren, öffne\n\n\
                   {link}\n\nWarst du es nicht, tu nichts: Ohne diesen Link entsteht kein Konto.\n",
        },
        add: Text {
            subject: "Deine E-Mail-Adresse bei {server}",
            body: "Hallo,\n\njemand, hoffentlich du, möchte diese E-Mail-Adresse einem Konto bei {server} hinzufügen. Wer die Post dieser\n\
                   Adresse liest, kann dann ein neues Passwort für das Konto setzen. Um fortzufahren, öffne\n\n{link}\n\n\
                   Warst du es nicht, tu nichts.\n",
        },
        password: Text {
            subject: "Ein neues Passwort bei {server}",
            body: "Hallo,\n\njemand, hoffentlich du, möchte ein neues Passwort für dein Konto bei {server} setzen. Um fortzufahren, öffne\n\n\
                   {link}\n\nWarst du es nicht, öffne den Link NICHT: Dein Passwort bleibt, wie es ist.\n",
        },
    },
    Language {
        name: "fr",
        register: Text {
            subject: "Votre compte sur {server}",
            body: "Bonjour,\n\nquelqu'un, vous sans doute, crée un compte sur {server} avec cette adresse. Pour continuer, ouvrez\n\n\
                   {link}\n\nSi ce n'est pas vous, ne faites rien : sans ce lien, aucun compte ne sera créé.\n",
        },
        add: Text {
            subject: "Votre adresse sur {server}",
            body: "Bonjour,\n\nquelqu'un, vous sans doute, veut ajouter cette adresse à un compte sur {server}. Qui lit le courrier de cette\n\
                   adresse pourra alors choisir un nouveau mot de passe pour ce compte. Pour continuer, ouvrez\n\n{link}\n\n\
                   Si ce n'est pas vous, ne faites rien.\n",
        },
        password: Text {
            subject: "Un nouveau mot de passe sur {server}",
            body: "Bonjour,\n\nquelqu'un, vous sans doute, veut choisir un nouveau mot de passe pour votre compte sur {server}. Pour\n\
                   continuer, ouvrez\n\n{link}\n\nSi ce n'est pas vous, n'ouvrez PAS ce lien : votre mot de passe ne change pas.\n",
        },
    },
    Language {
        name: "es",
        register: Text {
            subject: "Tu cuenta en {server}",
            body: "Hola:\n\nAlguien, esperamos que tú, está creando una cuenta en {server} con esta dirección. Para continuar, abre\n\n\
                   {link}\n\nSi no has sido tú, no hagas nada: sin este enlace no habrá ninguna cuenta.\n",
        },
        add: Text {
            subject: "Tu dirección de correo en {server}",
            body: "Hola:\n\nAlguien, esperamos que tú, quiere añadir esta dirección a una cuenta en {server}. Quien lea el correo de esta\n\
                   dirección podrá poner una contraseña nueva a la cuenta. Para continuar, abre\n\n{link}\n\n\
                   Si no has sido tú, no hagas nada.\n",
        },
        password: Text {
            subject: "Una contraseña nueva en {server}",
            body: "Hola:\n\nAlguien, esperamos que tú, quiere poner una contraseña nueva a tu cuenta en {server}. Para continuar, abre\n\n\
                   {link}\n\nSi no has sido tú, NO abras el enlace: tu contraseña sigue como está.\n",
        },
    },
];

/// The letter about something, in the first language of an `Accept-Language` that there is one in, or else in English.
pub(super) fn text(languages: &str, about: &str) -> &'static Text {
    let language = |wanted: &str| {
        let wanted = wanted.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let name = wanted.split('-').next().unwrap_or_default().to_owned();
        LANGUAGES.iter().find(|language| language.name == name)
    };
    let language = languages.split(',').find_map(language).unwrap_or(&LANGUAGES[0]);
    match about {
        "register" => &language.register,
        "add" => &language.add,
        _ => &language.password,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_language_that_there_is() {
        let subject = |languages| text(languages, "password").subject;
        assert_eq!(subject(""), "A new password on {server}");
        assert_eq!(subject("pt, de-AT;q=0.9, fr"), "Ein neues Passwort bei {server}");
        assert_eq!(subject("FR"), "Un nouveau mot de passe sur {server}");
        assert_eq!(text("es", "register").subject, "Tu cuenta en {server}");
    }

    #[test]
    fn every_letter_leads_somewhere_and_says_from_where_it_is() {
        for language in LANGUAGES {
            for text in [language.register, language.add, language.password] {
                assert!(text.body.contains("{link}") && text.body.contains("{server}"), "{}", text.subject);
                assert!(text.subject.contains("{server}"));
            }
        }
    }
}
